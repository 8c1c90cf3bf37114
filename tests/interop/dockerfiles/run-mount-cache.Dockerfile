FROM base
RUN --mount=type=cache,target=/c,id=ct1 echo kept >> /c/f && wc -l < /c/f > /n
RUN --mount=type=cache,target=/c,id=ct1,ro cat /c/f | head -1 > /m
RUN --mount=type=cache,target=/p,id=ct2,uid=5,gid=6,mode=0700,sharing=private stat -c %u:%g:%a /p > /s
RUN --mount=type=cache,target=/l,id=ct3,sharing=locked true
