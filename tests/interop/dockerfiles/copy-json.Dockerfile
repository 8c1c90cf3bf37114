FROM base
COPY ["with space.txt", "notes.txt", "/sp aced/"]
