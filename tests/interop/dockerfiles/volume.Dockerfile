FROM base
RUN mkdir /data && echo x > /data/x
VOLUME /data /d2
VOLUME ["/d 3"]
