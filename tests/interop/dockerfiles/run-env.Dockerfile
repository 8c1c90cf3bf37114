FROM base
RUN hostname > /h; cat /etc/hosts | head -1 > /hosts; pwd > /pwd; id -u > /id; echo $HOME > /homedir
