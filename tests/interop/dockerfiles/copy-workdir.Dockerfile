FROM base
WORKDIR /usr/app
COPY notes.txt .
COPY notes.txt rel/
COPY notes.txt ./name
