FROM base
ENV X=env
ARG X=arg
ARG N=arg
ENV N=env
RUN echo $X $N > /xn
