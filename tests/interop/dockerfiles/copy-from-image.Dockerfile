FROM base
COPY --from=base /etc/passwd /passwd
