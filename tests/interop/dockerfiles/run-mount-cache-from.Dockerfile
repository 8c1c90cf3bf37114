FROM base AS seed
RUN mkdir /s && echo seed > /s/f
FROM base
RUN --mount=type=cache,target=/c,id=ct4,from=seed,source=/s cat /c/f > /f
