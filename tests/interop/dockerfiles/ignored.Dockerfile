FROM base
COPY . /c/
