FROM base
MAINTAINER Someone <a@b.c>
