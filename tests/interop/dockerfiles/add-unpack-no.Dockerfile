FROM base
ADD --unpack=false arc.tgz /t/
