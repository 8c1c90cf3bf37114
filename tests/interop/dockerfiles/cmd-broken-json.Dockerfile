FROM base
CMD ['single', 'quotes']
