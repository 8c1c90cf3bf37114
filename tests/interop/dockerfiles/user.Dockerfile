FROM base
USER app
RUN id > /tmp/id
USER 55:66
RUN id -u > /tmp/u
USER app:extra
RUN id -g > /tmp/g
