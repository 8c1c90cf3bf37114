FROM base
COPY --parents ./tree/./deep/er/g notes.txt /p1/
COPY --parents tree/**/*.md /p2/
