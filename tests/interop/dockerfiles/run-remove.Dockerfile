FROM base
RUN mkdir -p /d/e && echo x > /d/e/f && echo y > /d/g
RUN rm -r /d/e
RUN rm -rf /d && mkdir /d && echo z > /d/z
