FROM base
ADD --link --chown=5:6 tree/ /linked/
