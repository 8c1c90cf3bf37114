FROM base
COPY --chown=app tree /by-name
COPY --chown=12:34 tree /by-number
COPY --chown=app:extra notes.txt /grp/
COPY --chown=7 notes.txt /seven/
