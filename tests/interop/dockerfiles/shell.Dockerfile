FROM base
SHELL ["/bin/sh", "-ec"]
RUN echo $- > /flags
CMD a b
ENTRYPOINT c
