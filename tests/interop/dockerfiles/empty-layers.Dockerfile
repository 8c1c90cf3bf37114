FROM base
RUN true
WORKDIR /etc
