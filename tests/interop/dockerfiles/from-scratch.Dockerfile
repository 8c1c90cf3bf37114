FROM scratch
COPY notes.txt /
