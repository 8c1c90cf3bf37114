FROM base AS build
RUN mkdir -p /own/sub && echo x > /own/f && chown -R 7:8 /own && chmod 1777 /own/sub
FROM base
COPY --from=build /own /own2
COPY --from=0 --chown=app /own/f /a/b/
COPY --from=build own/f /rel
