FROM base
ADD arc.tgz /t1
ADD arc.tgz /t2/
ADD --chown=app arc.tgz /t3/
