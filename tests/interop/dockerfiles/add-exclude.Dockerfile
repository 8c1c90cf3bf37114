FROM base
ADD --exclude=**/*.md tree /ex/
