FROM base AS other
RUN mkdir -p /o/p && echo from > /o/p/f
FROM base
RUN --mount=type=bind,target=/ctx cp /ctx/notes.txt /n1
RUN --mount=from=other,source=/o,target=/mnt/o cat /mnt/o/p/f > /n2
RUN --mount=type=bind,source=notes.txt,target=/n.txt cat /n.txt > /n3
RUN --mount=type=bind,from=other,source=/o,dst=/w,rw echo lost > /w/new && ls /w > /n4
