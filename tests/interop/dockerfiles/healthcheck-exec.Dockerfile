FROM base
HEALTHCHECK CMD ["true", "x"]
