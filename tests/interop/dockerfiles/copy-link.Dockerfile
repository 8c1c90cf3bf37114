FROM base
RUN mkdir /real && ln -s /real /lnk
COPY --link notes.txt /fresh/
COPY --link tree /real/
