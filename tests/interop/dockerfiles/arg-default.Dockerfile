ARG V=1
FROM base
ARG V
ARG W=${V:-none}x
RUN echo "$V $W" > /out
LABEL w=$W
