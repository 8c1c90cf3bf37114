FROM base AS a
RUN echo a > /a
FROM base AS b
RUN echo b > /b
FROM base AS unused
RUN false
FROM scratch
COPY --from=a /a /
COPY --from=b /b /
