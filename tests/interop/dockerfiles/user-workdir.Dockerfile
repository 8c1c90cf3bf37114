FROM base
USER app
WORKDIR /work/here
RUN touch f
