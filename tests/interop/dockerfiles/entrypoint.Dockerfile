FROM base
CMD ["kept"]
ENTRYPOINT ["/bin/echo", "e"]
