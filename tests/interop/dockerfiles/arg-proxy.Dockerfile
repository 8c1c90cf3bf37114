FROM base
RUN echo "$HTTP_PROXY $https_proxy $NO_PROXY $ftp_proxy $ALL_PROXY" > /proxies
