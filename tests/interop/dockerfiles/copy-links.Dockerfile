FROM base
COPY links/file /l1
COPY links/dir /l2
COPY links /l3
