FROM base AS one
ARG A=first
FROM one
RUN echo $A > /a
