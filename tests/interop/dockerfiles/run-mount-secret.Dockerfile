FROM base
RUN --mount=type=secret,id=none test ! -e /run/secrets/none
RUN --mount=type=secret,id=given cat /run/secrets/given | wc -c > /n
RUN --mount=type=secret,id=given,target=/my/secret,mode=0444,uid=3,gid=4 stat -c %u:%g:%a /my/secret > /s
RUN --mount=type=secret,id=given,env=SEC test "$SEC" = "hush"
RUN ! ls /run/secrets
