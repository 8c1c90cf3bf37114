FROM base
ADD --chmod=u=rwX,go=rX tree /modes
ADD --chmod=750 notes.txt /m/
