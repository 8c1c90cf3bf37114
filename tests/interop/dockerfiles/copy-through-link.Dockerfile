FROM base
RUN mkdir /other && ln -s /other /dl
COPY notes.txt /dl/x
COPY tree /dl
