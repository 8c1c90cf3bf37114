FROM base
COPY *.txt /w1/
COPY t*e/d*/?r /w2/
COPY nothing* /w3/
COPY [n]otes.* /w4/
