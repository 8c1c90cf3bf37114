FROM base
COPY --chmod=644 run.sh /new/dir/
COPY --chmod=0755 tree /x
