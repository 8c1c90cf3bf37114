FROM base
ENV A=1 \
    B=2 \

    C=3
RUN echo one && \
    echo two \
    > /two
