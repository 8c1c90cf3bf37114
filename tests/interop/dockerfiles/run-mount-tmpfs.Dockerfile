FROM base
RUN --mount=type=tmpfs,target=/tt,size=1m echo x > /tt/x && df -k /tt | tail -1 | tr -s " " | cut -d " " -f 2 > /size
