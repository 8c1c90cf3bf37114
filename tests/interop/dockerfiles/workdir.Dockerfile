FROM base
WORKDIR /a
WORKDIR b
ENV D=/c
WORKDIR $D/../e
RUN pwd > /p
WORKDIR /etc
