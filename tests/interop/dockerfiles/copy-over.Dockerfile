FROM base
RUN mkdir -p -m 700 /app/deep && echo old > /app/a.md && chown 9:9 /app/a.md /app
COPY tree /app
