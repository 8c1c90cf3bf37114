FROM base AS parent
ONBUILD COPY notes.txt /on/
ONBUILD RUN echo trigger > /trig
ONBUILD ENV ON=1
FROM parent
RUN cat /trig > /after
