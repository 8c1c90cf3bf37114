FROM base
RUN ["sh", "-c", "echo $HOME > /h"]
RUN ["touch", "/a b"]
