FROM --platform=$BUILDPLATFORM base AS tool
RUN echo t > /t
FROM base
COPY --from=tool /t /t
