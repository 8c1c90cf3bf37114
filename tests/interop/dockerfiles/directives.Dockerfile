# escape=`
# check=skip=all
FROM base
ENV P=a `
 Q=b
RUN echo `
  x > /x
