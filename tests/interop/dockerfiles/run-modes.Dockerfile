FROM base
RUN umask 027; mkdir /m; touch /m/f; chmod 4755 /m/f; mkfifo /m/p; ln /m/f /m/hard; ln -s f /m/soft
