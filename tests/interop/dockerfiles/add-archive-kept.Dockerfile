FROM base
COPY arc.tgz /kept/
ADD notes.txt /plain/
