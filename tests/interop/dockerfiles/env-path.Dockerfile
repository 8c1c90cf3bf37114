FROM base
ENV PATH=/opt/bin:$PATH
