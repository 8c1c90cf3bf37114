FROM base
COPY notes.txt /
COPY notes.txt /file
COPY notes.txt /d/
COPY tree /t
COPY tree/ /t2/
COPY . /all/
