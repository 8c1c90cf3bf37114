FROM base
CMD echo hi "there" $HOME
