# one

FROM base
   # indented
RUN echo a \
 # inside
  b > /c
#end
