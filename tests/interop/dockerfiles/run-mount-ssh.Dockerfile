FROM base
RUN --mount=type=ssh,required=false echo $SSH_AUTH_SOCK > /s
