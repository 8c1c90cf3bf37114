FROM base
COPY --exclude=*.md --exclude=deep tree /e/
