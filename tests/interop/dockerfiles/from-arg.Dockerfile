ARG NAME=base
FROM ${NAME} AS x
RUN echo x > /x
FROM x
RUN echo y > /y
